import Foundation
import LongspanKernels

/// Reads the JSON of model folders.
enum JSONFile {
  /// Far above what the largest vocabularies take.
  private static let mostBytes = 256 << 20

  /// Decodes a whole file.
  static func decode<Value: Decodable>(_ type: Value.Type, path: String) throws(LongspanError) -> Value {
    let file = try MappedFile(path: path)
    guard file.byteCount <= mostBytes else {
      throw LongspanError(.invalidFile, "\(path): \(file.byteCount) bytes are too many for JSON")
    }
    return try decode(type, file.bytes, fileName: path)
  }

  /// Decodes JSON.
  ///
  /// `Infinity` and `NaN`, which Python writes though JSON has no such numbers, become objects as transformers has them since:
  /// `{"__float__": "Infinity"}`.
  ///
  /// - Parameter fileName: begins the error message.
  static func decode<Value: Decodable>(
    _ type: Value.Type, _ bytes: RawSpan, fileName: String
  ) throws(LongspanError) -> Value {
    let text = bytes.withUnsafeBytes { String(validating: $0, as: UTF8.self) }
    guard let text else { throw LongspanError(.invalidFile, "\(fileName): the JSON is not UTF-8") }
    do {
      return try JSONDecoder().decode(type, from: Data(taggingNumbers(text).utf8))
    } catch {
      throw LongspanError(.invalidFile, "\(fileName): \(describe(error))")
    }
  }

  /// The text with `Infinity` and `NaN` outside of strings as objects.
  private static func taggingNumbers(_ text: String) -> String {
    guard text.contains("Infinity") || text.contains("NaN") else { return text }
    var result = ""
    var rest = text[...]
    while let quote = rest.firstIndex(of: "\"") {
      result += tagged(rest[..<quote])
      var end = rest.index(after: quote)
      while end < rest.endIndex, rest[end] != "\"" {
        if rest[end] == "\\" { end = rest.index(after: end) }
        if end < rest.endIndex { end = rest.index(after: end) }
      }
      if end < rest.endIndex { end = rest.index(after: end) }
      result += rest[quote..<end]
      rest = rest[end...]
    }
    return result + tagged(rest)
  }

  private static func tagged(_ text: Substring) -> Substring {
    text.replacing("Infinity", with: "{\"__float__\":\"Infinity\"}")
      .replacing("NaN", with: "{\"__float__\":\"NaN\"}")
  }

  private static func describe(_ error: any Error) -> String {
    func place(_ context: DecodingError.Context, _ last: (any CodingKey)? = nil) -> String {
      let path = (context.codingPath + (last.map { [$0] } ?? [])).map(\.stringValue).joined(separator: ".")
      return path.isEmpty ? "the JSON" : "'\(path)' of the JSON"
    }
    return switch error {
    case DecodingError.keyNotFound(let key, let context): "\(place(context, key)) is missing"
    case DecodingError.valueNotFound(_, let context): "\(place(context)) is null"
    case DecodingError.typeMismatch(_, let context): "\(place(context)) is of another type than expected"
    case DecodingError.dataCorrupted(let context): "\(place(context)) is not well-formed or out of range"
    default: "the JSON cannot be read"
    }
  }
}
