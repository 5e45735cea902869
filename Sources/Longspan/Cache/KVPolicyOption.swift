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

  /// - Throws: ``LongspanError`` that names what is wrong and lists what exists.
  public static func policy(_ text: String) throws(LongspanError) -> any KVCachePolicy {
    let (name, rest) = split(text, at: ":")
    switch name {
    case "dense":
      guard rest == nil else { throw LongspanError(.invalidArgument, "dense: has no parameters") }
      return DensePolicy()
    case "lagkv":
      return try lagRelative(Parameters(name, rest))
    default:
      throw LongspanError(.invalidArgument, "no cache policy is named '\(name)'; there are dense, lagkv")
    }
  }

  private static func lagRelative(_ given: Parameters) throws(LongspanError) -> any KVCachePolicy {
    try given.check(["sink", "lag", "ratio", "positions", "weight", "skip", "mode", "prefill"])
    var skipped: Set<Int> = []
    for layer in given.values["skip"]?.split(separator: "+") ?? [] {
      guard let number = Int(layer) else { throw given.error("skip", "layers between plus signs: 0+1") }
      skipped.insert(number)
    }
    return try LagRelativeCompression(
      sink: given.value("sink", 16, "a whole number", Int.init),
      lag: given.value("lag", 1024, "a whole number", Int.init),
      ratio: given.value("ratio", 0.5, "a number", Double.init),
      valueWeight: given.value("weight", 1, "a number", Float.init), skippedLayers: skipped,
      mode: given.value("mode", .useThenCompress, oneOf(LagRelativeCompression.Mode.self)) {
        .init(rawValue: $0)
      },
      prefill: given.value("prefill", .chunked, oneOf(LagRelativeCompression.Prefill.self)) {
        .init(rawValue: $0)
      },
      positions: given.value("positions", .absolute, oneOf(KVPositions.self)) { .init(rawValue: $0) })
  }

  private static func oneOf<Value: CaseIterable & RawRepresentable<String>>(_ type: Value.Type) -> String {
    Value.allCases.map(\.rawValue).joined(separator: " or ")
  }

  private static func split(_ text: some StringProtocol, at mark: Character) -> (String, String?) {
    guard let place = text.firstIndex(of: mark) else { return (String(text), nil) }
    return (String(text[..<place]), String(text[text.index(after: place)...]))
  }

  /// Parameters by key.
  private struct Parameters {
    let name: String
    var values: [String: String] = [:]

    init(_ name: String, _ text: String?) throws(LongspanError) {
      self.name = name
      for part in text?.split(separator: ",", omittingEmptySubsequences: false) ?? [] {
        let (key, value) = KVPolicyOption.split(part, at: "=")
        guard let value else {
          throw LongspanError(.invalidArgument, "\(name): '\(part)' is not of the form key=value")
        }
        guard values.updateValue(value, forKey: key) == nil else {
          throw LongspanError(.invalidArgument, "\(name): \(key) is given twice")
        }
      }
    }

    func check(_ keys: [String]) throws(LongspanError) {
      if let unknown = values.keys.sorted().first(where: { !keys.contains($0) }) {
        throw LongspanError(
          .invalidArgument,
          "\(name): no parameter is named '\(unknown)'; there are \(keys.joined(separator: ", "))")
      }
    }

    func value<Value>(
      _ key: String, _ fallback: Value, _ form: String, _ read: (String) -> Value?
    ) throws(LongspanError) -> Value {
      guard let text = values[key] else { return fallback }
      guard let value = read(text) else { throw error(key, form) }
      return value
    }

    func error(_ key: String, _ form: String) -> LongspanError {
      LongspanError(.invalidArgument, "\(name): \(key)=\(values[key] ?? "") is not \(form)")
    }
  }
}
