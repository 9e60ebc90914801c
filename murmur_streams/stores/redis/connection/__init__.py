"""Connections to the server: made, checked, and what their failures mean."""
