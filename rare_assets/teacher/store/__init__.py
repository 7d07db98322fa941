"""Keep answers on durable storage, and know who asks for which at present."""
