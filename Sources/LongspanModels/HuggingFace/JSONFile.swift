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
    return try decode(type, file.bytes.withUnsafeBytes { Data($0) }, fileName: path)
  }

  /// Decodes JSON; `Infinity`, which Python writes, is taken as a number.
  ///
  /// - Parameter fileName: begins the error message.
  static func decode<Value: Decodable>(
    _ type: Value.Type, _ data: Data, fileName: String
  ) throws(LongspanError) -> Value {
    let decoder = JSONDecoder()
    decoder.allowsJSON5 = true
    do {
      return try decoder.decode(type, from: data)
    } catch {
      throw LongspanError(.invalidFile, "\(fileName): \(describe(error))")
    }
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
