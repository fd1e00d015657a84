package ai.onnxruntime;

/** Type and shape of a tensor; -1 is a free size. */
public class TensorInfo implements ValueInfo {
  public final OnnxJavaType type;
  final long[] shape;
  private final String[] names;

  TensorInfo(OnnxJavaType type, long[] shape, String[] names) {
    this.type = type;
    this.shape = shape;
    this.names = names;
  }

  public long[] getShape() {
    return shape.clone();
  }

  public String[] getDimensionNames() {
    return names.clone();
  }
}
