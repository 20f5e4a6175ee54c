"""Tasks: one functional Keras model each, with its loss and its answer."""

# Task -> model name in a recipe -> class.
MODELS = {
    "classification": {
        "classifier": "visionkit.tasks.classification:ImageClassifier",
    },
}
