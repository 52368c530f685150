"""Small BERT networks on CTranslate2, built from their weights: what the sentence encoder and the verifier have in common."""
