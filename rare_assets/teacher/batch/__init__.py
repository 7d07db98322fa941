"""Ask through an endpoint's Batch API."""
