"""Authentication and access: which caller sent a request, and what it may do."""

from murmur_streams.server.auth.callers import Authenticator, BearerTokens

__all__ = ["Authenticator", "BearerTokens"]
