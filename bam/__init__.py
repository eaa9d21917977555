"""BAM (Behance Artistic Media): from its database, or the earlier implementation's lists, to a data folder."""
