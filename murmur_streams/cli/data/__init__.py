"""The commands for what is stored: export, import, audits, keys and the server itself."""
