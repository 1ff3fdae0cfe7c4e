"""The HTTP application, with one module for each protocol over HTTP."""
