"""HTTP: routes, streams, problems, auth. What runs are and how they change lies below."""
