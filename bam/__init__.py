"""BAM (Behance Artistic Media) from its database, and from the lists of the earlier implementation, to a data folder."""
