"""The HTTP application and one module for each protocol over HTTP."""
