/// A metadata value of a GGUF file.
public enum GGUFValue: Hashable, Sendable {
  /// An unsigned 8-bit integer.
  case uint8(UInt8)
  /// A signed 8-bit integer.
  case int8(Int8)
  /// An unsigned 16-bit integer.
  case uint16(UInt16)
  /// A signed 16-bit integer.
  case int16(Int16)
  /// An unsigned 32-bit integer.
  case uint32(UInt32)
  /// A signed 32-bit integer.
  case int32(Int32)
  /// An unsigned 64-bit integer.
  case uint64(UInt64)
  /// A signed 64-bit integer.
  case int64(Int64)
  /// An IEEE 754 binary32.
  case float32(Float)
  /// An IEEE 754 binary64.
  case float64(Double)
  /// A truth value.
  case bool(Bool)
  /// UTF-8 text.
  case string(String)
  /// Values of one type.
  case array(GGUFArray)
}

/// A metadata array of a GGUF file: values of one type.
///
/// GGUF also knows arrays of arrays. No known metadata key uses them, and Longspan refuses them.
public enum GGUFArray: Hashable, Sendable {
  /// Unsigned 8-bit integers.
  case uint8([UInt8])
  /// Signed 8-bit integers.
  case int8([Int8])
  /// Unsigned 16-bit integers.
  case uint16([UInt16])
  /// Signed 16-bit integers.
  case int16([Int16])
  /// Unsigned 32-bit integers.
  case uint32([UInt32])
  /// Signed 32-bit integers.
  case int32([Int32])
  /// Unsigned 64-bit integers.
  case uint64([UInt64])
  /// Signed 64-bit integers.
  case int64([Int64])
  /// IEEE 754 binary32 numbers.
  case float32([Float])
  /// IEEE 754 binary64 numbers.
  case float64([Double])
  /// Truth values.
  case bool([Bool])
  /// UTF-8 texts.
  case string([String])
}

extension GGUFValue {
  /// The value as an `Int`, if it is of an integer type and fits.
  var integer: Int? {
    switch self {
    case .uint8(let value): Int(value)
    case .int8(let value): Int(value)
    case .uint16(let value): Int(value)
    case .int16(let value): Int(value)
    case .uint32(let value): Int(value)
    case .int32(let value): Int(value)
    case .uint64(let value): Int(exactly: value)
    case .int64(let value): Int(exactly: value)
    default: nil
    }
  }

  /// The value as a `Float`, if it is of a floating-point type.
  var floatingPoint: Float? {
    switch self {
    case .float32(let value): value
    case .float64(let value): Float(value)
    default: nil
    }
  }

  /// The array as `Int`s, if its elements are of an integer type and all fit.
  var integers: [Int]? {
    guard case .array(let array) = self else { return nil }
    return switch array {
    case .uint8(let values): values.map { Int($0) }
    case .int8(let values): values.map { Int($0) }
    case .uint16(let values): values.map { Int($0) }
    case .int16(let values): values.map { Int($0) }
    case .uint32(let values): values.map { Int($0) }
    case .int32(let values): values.map { Int($0) }
    case .uint64(let values): Self.exactly(values)
    case .int64(let values): Self.exactly(values)
    default: nil
    }
  }

  /// The array as `Float`s, if its elements are of a floating-point type.
  var floatingPoints: [Float]? {
    switch self {
    case .array(.float32(let values)): values
    case .array(.float64(let values)): values.map { Float($0) }
    default: nil
    }
  }

  /// The value's type in words, for error messages.
  var typeName: String {
    switch self {
    case .uint8: "uint8"
    case .int8: "int8"
    case .uint16: "uint16"
    case .int16: "int16"
    case .uint32: "uint32"
    case .int32: "int32"
    case .uint64: "uint64"
    case .int64: "int64"
    case .float32: "float32"
    case .float64: "float64"
    case .bool: "bool"
    case .string: "string"
    case .array(let array): "array of \(array.elementTypeName)"
    }
  }

  private static func exactly<Value: FixedWidthInteger>(_ values: [Value]) -> [Int]? {
    var result: [Int] = []
    result.reserveCapacity(values.count)
    for value in values {
      guard let integer = Int(exactly: value) else { return nil }
      result.append(integer)
    }
    return result
  }
}

extension GGUFArray {
  /// The number of elements.
  public var count: Int {
    switch self {
    case .uint8(let values): values.count
    case .int8(let values): values.count
    case .uint16(let values): values.count
    case .int16(let values): values.count
    case .uint32(let values): values.count
    case .int32(let values): values.count
    case .uint64(let values): values.count
    case .int64(let values): values.count
    case .float32(let values): values.count
    case .float64(let values): values.count
    case .bool(let values): values.count
    case .string(let values): values.count
    }
  }

  var elementTypeName: String {
    switch self {
    case .uint8: "uint8"
    case .int8: "int8"
    case .uint16: "uint16"
    case .int16: "int16"
    case .uint32: "uint32"
    case .int32: "int32"
    case .uint64: "uint64"
    case .int64: "int64"
    case .float32: "float32"
    case .float64: "float64"
    case .bool: "bool"
    case .string: "string"
    }
  }
}
