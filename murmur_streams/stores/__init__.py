"""The stores: one technology a room, all with the same behaviour; never agents or workers."""
