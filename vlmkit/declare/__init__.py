"""What declared stages share: the base of configs, sections, stages from elsewhere."""
