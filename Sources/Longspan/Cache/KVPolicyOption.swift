import LongspanKernels

/// Reads cache policies as people write them: a name, and after a colon parameters `key=value` between commas.
///
/// `dense`; `lagkv:sink=16,lag=128,ratio=0.25,positions=renumbered`. Parameters left out have the defaults of the policy's
/// initializer.
public enum KVPolicyOption {
  /// What can be written, for help texts.
  public static let help = """
    dense; lagkv with sink=16, lag=1024, ratio=0.5, positions=absolute|renumbered, weight=1, skip=0+1 (layers), \
    mode=useThenCompress|compressFirst, prefill=chunked|oneShot
    """

  /// - Throws: ``/LongspanKernels/LongspanError`` that names what is wrong and lists what exists.
  public static func policy(_ text: String) throws(LongspanError) -> any KVCachePolicy {
    let (name, rest) = OptionParameters.split(text, at: ":")
    switch name {
    case "dense":
      guard rest == nil else { throw LongspanError(.invalidArgument, "dense: has no parameters") }
      return DensePolicy()
    case "lagkv":
      return try lagRelative(OptionParameters(name, rest))
    default:
      throw LongspanError(.invalidArgument, "no cache policy is named '\(name)'; there are dense, lagkv")
    }
  }

  private static func lagRelative(_ given: OptionParameters) throws(LongspanError) -> any KVCachePolicy {
    try given.check(["sink", "lag", "ratio", "positions", "weight", "skip", "mode", "prefill"])
    let skipped = Set(try given.list("skip", of: "layers") ?? [])
    return try LagRelativeCompression(
      sink: given.value("sink", 16, "a whole number", Int.init),
      lag: given.value("lag", 1024, "a whole number", Int.init),
      ratio: given.value("ratio", 0.5, "a number", Double.init),
      valueWeight: given.value("weight", 1, "a number", Float.init), skippedLayers: skipped,
      mode: given.value("mode", .useThenCompress, OptionParameters.oneOf(LagRelativeCompression.Mode.self)) {
        .init(rawValue: $0)
      },
      prefill: given.value("prefill", .chunked, OptionParameters.oneOf(LagRelativeCompression.Prefill.self)) {
        .init(rawValue: $0)
      },
      positions: given.value("positions", .absolute, OptionParameters.oneOf(KVPositions.self)) {
        .init(rawValue: $0)
      })
  }
}
