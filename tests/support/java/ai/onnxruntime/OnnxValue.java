package ai.onnxruntime;

/** A value of a graph. */
public interface OnnxValue extends AutoCloseable {
  ValueInfo getInfo();

  @Override
  void close();
}
