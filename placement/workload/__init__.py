"""What a job computes, keeps and sends: transformers and networks layer by layer."""
