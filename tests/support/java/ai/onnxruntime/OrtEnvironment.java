package ai.onnxruntime;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.List;

/** Stands in for ONNX Runtime's class of this name. A "model" is a text file, see OrtSession. */
public final class OrtEnvironment {
  private static final OrtEnvironment ONE = new OrtEnvironment();

  /** Objects that were opened and not closed. */
  public static int alive = 0;

  /** What the last SessionOptions were told. */
  public static String told = "";

  private OrtEnvironment() {}

  public static OrtEnvironment getEnvironment() {
    return ONE;
  }

  public OrtSession createSession(String path, OrtSession.SessionOptions options)
      throws OrtException {
    told = options.told.toString();
    try {
      List<String> lines = Files.readAllLines(Paths.get(path));
      if (lines.isEmpty() || !lines.get(0).equals("model")) {
        throw new OrtException("INVALID_PROTOBUF", "Load model from " + path + " failed:bad file");
      }
      return new OrtSession(lines);
    } catch (IOException e) {
      throw new OrtException("NO_SUCHFILE", "Load model from " + path + " failed: no file");
    }
  }
}
