"""WebShop's data: records, the original's files, the generated catalogue, the cache on disk."""
