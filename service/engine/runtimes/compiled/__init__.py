"""The network as machine code of its own: made by LLVM for this model and this processor when the model is opened."""
