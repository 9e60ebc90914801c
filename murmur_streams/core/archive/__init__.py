"""A run as it is moved between stores."""
