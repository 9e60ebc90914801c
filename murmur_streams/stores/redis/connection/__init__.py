"""Makes and checks connections to the server, and judges their failures."""
