package ai.onnxruntime;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A graph of one line: every output is its input of the same place, each float doubled. Lines are
 * "model", "input NAME TYPE SIZE.." and "output NAME TYPE SIZE.."; a size that is a word is free.
 * The line "slow" waits ten seconds or until it is terminated, "fail" throws.
 */
public class OrtSession implements AutoCloseable {
  private final Map<String, NodeInfo> inputs = new LinkedHashMap<>();
  private final Map<String, NodeInfo> outputs = new LinkedHashMap<>();
  private boolean slow = false;
  private boolean fail = false;
  private boolean open = true;

  OrtSession(List<String> lines) {
    for (String line : lines) {
      String[] words = line.split(" ");
      if (words[0].equals("input")) {
        inputs.put(words[1], node(words));
      } else if (words[0].equals("output")) {
        outputs.put(words[1], node(words));
      }
      slow |= words[0].equals("slow");
      fail |= words[0].equals("fail");
    }
    OrtEnvironment.alive++;
  }

  private static NodeInfo node(String[] words) {
    long[] shape = new long[words.length - 3];
    String[] names = new String[shape.length];
    for (int i = 0; i < shape.length; i++) {
      boolean free = !words[3 + i].matches("[0-9]+");
      shape[i] = free ? -1 : Long.parseLong(words[3 + i]);
      names[i] = free ? words[3 + i] : "";
    }
    return new NodeInfo(
        words[1], new TensorInfo(OnnxJavaType.valueOf(words[2]), shape, names));
  }

  public Map<String, NodeInfo> getInputInfo() {
    return inputs;
  }

  public Map<String, NodeInfo> getOutputInfo() {
    return outputs;
  }

  public Result run(Map<String, OnnxTensor> feeds) throws OrtException {
    return run(feeds, null);
  }

  public Result run(Map<String, OnnxTensor> feeds, RunOptions options) throws OrtException {
    if (!open) {
      throw new IllegalStateException("Asking to run inference on a closed OrtSession.");
    }
    if (fail) {
      throw new OrtException("FAIL", "Non-zero status code returned while running Add node.");
    }
    for (int i = 0; slow && i < 1000; i++) {
      if (options.terminate) {
        throw new OrtException("FAIL", "Exiting due to terminate flag being set to true.");
      }
      try {
        Thread.sleep(10);
      } catch (InterruptedException e) {
        throw new OrtException("FAIL", "interrupted");
      }
    }
    List<OnnxTensor> values = new ArrayList<>();
    for (String name : inputs.keySet()) {
      values.add(doubled(feeds.get(name)));
    }
    return new Result(values);
  }

  private static OnnxTensor doubled(OnnxTensor tensor) {
    int size = tensor.data.capacity();
    ByteBuffer data = ByteBuffer.allocateDirect(size).order(ByteOrder.nativeOrder());
    ByteBuffer from = tensor.data.duplicate().order(ByteOrder.nativeOrder());
    from.rewind();
    if (tensor.getInfo().type == OnnxJavaType.FLOAT) {
      for (int i = 0; i < size; i += 4) {
        data.putFloat(i, 2 * from.getFloat(i));
      }
    } else {
      data.put(from);
      data.rewind();
    }
    return new OnnxTensor(data, tensor.getInfo());
  }

  @Override
  public void close() {
    if (open) {
      open = false;
      OrtEnvironment.alive--;
    }
  }

  /** The outputs of a run. */
  public static class Result implements AutoCloseable {
    private final List<OnnxTensor> values;

    Result(List<OnnxTensor> values) {
      this.values = values;
    }

    public OnnxValue get(int index) {
      return values.get(index);
    }

    @Override
    public void close() {
      for (OnnxTensor value : values) {
        value.close();
      }
    }
  }

  /** How a session is opened; remembers what it was told. */
  public static class SessionOptions implements AutoCloseable {
    final StringBuilder told = new StringBuilder();

    public SessionOptions() {
      OrtEnvironment.alive++;
    }

    public void setSessionLogLevel(OrtLoggingLevel level) {
      told.append("log=").append(level).append('\n');
    }

    public void setIntraOpNumThreads(int threads) {
      told.append("threads=").append(threads).append('\n');
    }

    public void setMemoryPatternOptimization(boolean on) {
      told.append("pattern=").append(on).append('\n');
    }

    public void setCPUArenaAllocator(boolean on) {
      told.append("arena=").append(on).append('\n');
    }

    public void setOptimizationLevel(OptLevel level) {
      told.append("level=").append(level).append('\n');
    }

    public void addConfigEntry(String key, String value) {
      told.append(key).append('=').append(value).append('\n');
    }

    @Override
    public void close() {
      OrtEnvironment.alive--;
    }

    /** How far a graph is rewritten. */
    public enum OptLevel {
      NO_OPT, BASIC_OPT, EXTENDED_OPT, LAYOUT_OPT, ALL_OPT
    }
  }

  /** Options of one run. */
  public static class RunOptions implements AutoCloseable {
    volatile boolean terminate = false;
    private boolean open = true;

    public RunOptions() {
      OrtEnvironment.alive++;
    }

    public void setTerminate(boolean terminate) {
      if (!open) {
        throw new IllegalStateException("Asking to terminate closed options.");
      }
      this.terminate = terminate;
    }

    @Override
    public void close() {
      open = false;
      OrtEnvironment.alive--;
    }
  }
}
