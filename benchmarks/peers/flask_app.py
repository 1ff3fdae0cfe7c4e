"""A typical small model server: Flask with a joblib file and `/predict`, run by waitress.

python benchmarks/peers/flask_app.py MODEL.joblib PORT
"""

from __future__ import annotations

import sys

import joblib
import waitress
from flask import Flask, jsonify, request

model = joblib.load(sys.argv[1])
app = Flask(__name__)


@app.post("/predict")
def predict():
    """Predict one row."""
    features = request.get_json()["features"]
    return jsonify({"prediction": int(model.predict([features])[0])})


@app.get("/health")
def health() -> str:
    """Report that the server runs."""
    return "ok"


waitress.serve(app, host="127.0.0.1", port=int(sys.argv[2]))
