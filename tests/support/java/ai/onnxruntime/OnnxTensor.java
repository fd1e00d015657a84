package ai.onnxruntime;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** A tensor; refuses what the real class refuses of a direct buffer. */
public class OnnxTensor implements OnnxValue {
  final ByteBuffer data;
  private final TensorInfo info;
  private boolean open = true;

  OnnxTensor(ByteBuffer data, TensorInfo info) {
    this.data = data;
    this.info = info;
    OrtEnvironment.alive++;
  }

  public static OnnxTensor createTensor(
      OrtEnvironment env, ByteBuffer data, long[] shape, OnnxJavaType type) throws OrtException {
    long count = type.size;
    for (long size : shape) {
      count *= size;
    }
    if (!data.isDirect() || data.order() != ByteOrder.nativeOrder() || data.remaining() != count) {
      throw new OrtException("INVALID_ARGUMENT", "buffer of " + data.remaining() + " bytes");
    }
    return new OnnxTensor(data, new TensorInfo(type, shape, new String[shape.length]));
  }

  @Override
  public TensorInfo getInfo() {
    return info;
  }

  /** A copy, as the real class gives. */
  public ByteBuffer getByteBuffer() {
    ByteBuffer copy = ByteBuffer.allocate(data.capacity()).order(ByteOrder.nativeOrder());
    ByteBuffer view = data.duplicate();
    view.rewind();
    copy.put(view);
    copy.rewind();
    return copy;
  }

  @Override
  public void close() {
    if (open) {
      open = false;
      OrtEnvironment.alive--;
    }
  }
}
