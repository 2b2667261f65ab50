"""From an unreliable API to a database to a model: which transactions will be refunded."""
