"""The operator's command, `registryctl`: it drives the system from outside, over HTTP, as any other client would."""
