"""What the graph talks to as Dagster sees it: resources, IO manager, partitions."""
