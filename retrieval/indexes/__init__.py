"""Vector indexes of document collections: rebuildable ways to find the rows of chunks that are nearest to a query."""
