"""Full-text search that ranks as Lucene does."""
