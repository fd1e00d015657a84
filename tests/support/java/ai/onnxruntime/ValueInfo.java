package ai.onnxruntime;

/** What a value is. */
public interface ValueInfo {}
