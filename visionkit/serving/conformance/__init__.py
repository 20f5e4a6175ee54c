"""The same questions to any server of an export: does it speak as TF Serving does?

    python -m visionkit.serving.conformance --target http://host:8501 \\
        --grpc host:8500 --model flowers --saved-model saved_models/flowers/3

The cases ask for what clients rely on: formats, codes, the gist of error texts, right
answers, and that one client's broken image is not another's. Nothing is changed in the
server. With `--saved-model` the answers are compared with those of the signature, which
is called in this process.
"""
