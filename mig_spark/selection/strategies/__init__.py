"""How rows are chosen: one module a strategy. Their table is `plugins.STRATEGIES`."""
