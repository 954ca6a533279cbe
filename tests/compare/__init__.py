"""The same answers read and priced by genai-prices, litellm and us, side by side: `make compare`."""
