"""In which order a tier of KV blocks gives its blocks up."""
