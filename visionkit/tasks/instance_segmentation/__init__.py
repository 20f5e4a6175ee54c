"""Instance segmentation: a detector that draws what it finds."""
