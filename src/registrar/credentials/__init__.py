"""The registrar's credentials: tokens, the AWS login and its sessions, and the token of the Envoy beside it."""
