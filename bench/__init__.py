"""The benchmark of gdprdb: what protection costs, and what it saves against doing it by hand."""
