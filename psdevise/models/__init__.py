"""The models: skip-gram, the visual cores, the heads on them, the losses. They know no data and no server."""
