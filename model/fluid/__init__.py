"""The fluid model: transfers that share links max-min fairly between events."""
