"""The stages, a module each: options, upstreams, what a table is made from, who is asked, the operator's call."""
