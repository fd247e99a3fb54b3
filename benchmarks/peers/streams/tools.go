//go:build tools

// Package tools names the programs of other modules that are built here, so that go.sum has them.
package tools

import _ "github.com/summerwind/h2spec/cmd/h2spec"
