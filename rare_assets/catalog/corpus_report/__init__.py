"""One page on all that is stored of a corpus: `figures` counts it shard by shard, `page` shows it."""
