"""Images inside other files: zip and tar archives, and Parquet columns of bytes or of pixels, read where they lie."""
