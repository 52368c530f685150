"""Small BERT networks on ONNX Runtime, built from their weights: what the sentence encoder and the verifier have in common."""
