"""xDS over gRPC: messages, encodings and the protocol of discovery streams. The listener is `registry.http2`."""
