"""Access: principals, the policy that decides what they may do, and the origin of requests of browsers."""
