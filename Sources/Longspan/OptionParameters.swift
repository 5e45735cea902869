import LongspanKernels

/// Parameters of a policy as people write them: `key=value` between commas, with one value without a key first where the
/// policy takes one.
package struct OptionParameters {
  private let name: String
  /// The value without a key.
  package private(set) var leading: String?
  package private(set) var values: [String: String] = [:]

  /// - Parameters:
  ///   - name: of the policy, for errors.
  ///   - text: what comes after the name's colon, if there is one.
  ///   - hasLeading: whether the first value has no key.
  package init(_ name: String, _ text: String?, hasLeading: Bool = false) throws(LongspanError) {
    self.name = name
    for (index, part) in (text?.split(separator: ",", omittingEmptySubsequences: false) ?? []).enumerated() {
      if index == 0, hasLeading {
        leading = String(part)
        continue
      }
      let (key, value) = Self.split(part, at: "=")
      guard let value else {
        throw LongspanError(.invalidArgument, "\(name): '\(part)' is not of the form key=value")
      }
      guard values.updateValue(value, forKey: key) == nil else {
        throw LongspanError(.invalidArgument, "\(name): \(key) is given twice")
      }
    }
  }

  package static func split(_ text: some StringProtocol, at mark: Character) -> (String, String?) {
    guard let place = text.firstIndex(of: mark) else { return (String(text), nil) }
    return (String(text[..<place]), String(text[text.index(after: place)...]))
  }

  package static func oneOf<Value: CaseIterable & RawRepresentable<String>>(_ type: Value.Type) -> String {
    Value.allCases.map(\.rawValue).joined(separator: " or ")
  }

  /// Throws if a key is none of these.
  package func check(_ keys: [String]) throws(LongspanError) {
    if let unknown = values.keys.sorted().first(where: { !keys.contains($0) }) {
      throw LongspanError(
        .invalidArgument,
        "\(name): no parameter is named '\(unknown)'; there are \(keys.joined(separator: ", "))")
    }
  }

  /// The value of a key, read by `read`, or `fallback` where it is not given.
  package func value<Value>(
    _ key: String, _ fallback: Value, _ form: String, _ read: (String) -> Value?
  ) throws(LongspanError) -> Value {
    guard let text = values[key] else { return fallback }
    guard let value = read(text) else { throw error(key, form) }
    return value
  }

  /// Whole numbers between plus signs, or `nil` where the key is not given.
  package func list(_ key: String, of what: String) throws(LongspanError) -> [Int]? {
    guard let text = values[key] else { return nil }
    var numbers: [Int] = []
    for part in text.split(separator: "+", omittingEmptySubsequences: false) {
      guard let number = Int(part) else { throw error(key, "\(what) between plus signs: 0+1") }
      numbers.append(number)
    }
    return numbers
  }

  package func error(_ key: String, _ form: String) -> LongspanError {
    LongspanError(.invalidArgument, "\(name): \(key)=\(values[key] ?? "") is not \(form)")
  }
}
