package ai.onnxruntime;

/** An error with the text that ONNX Runtime's Java binding gives. */
public class OrtException extends Exception {
  public OrtException(String code, String message) {
    super("Error code - ORT_" + code + " - message: " + message);
  }
}
